"""Every kind of damage to a trace on disk is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asgrad.errors import TraceError
from asgrad.methods import Ringmaster
from asgrad.simulation import simulate
from asgrad.times import Linear
from asgrad.trace import Fate, Trace

NAN, INF = float("nan"), float("inf")
TABLE_FILES = ("jobs", "contributions", "steps")


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Times 1, 2, 3, 4 and at most one step of delay: jobs are applied and dropped."""
    return simulate(Ringmaster(max_delay=2), Linear(), n_workers=4, steps=30)


@pytest.fixture
def folder(trace: Trace, tmp_path: Path) -> Path:
    """A saved trace to be damaged."""
    return trace.save(tmp_path / "trace")


@pytest.fixture
def damaged(refused: Callable, folder: Path) -> Callable[[], str]:
    """A function that loads the damaged trace and returns its refusal without the path."""

    def damaged() -> str:
        text = refused(lambda: Trace.load(folder), TraceError)
        assert str(folder) in text
        return text.replace(str(folder), "")

    return damaged


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a table on disk."""
    pq.write_table(change(pq.read_table(file)), file)


def first_job(trace: Trace, fate: Fate) -> int:
    """The row of the first job of a fate."""
    return int(np.flatnonzero(trace.jobs.fate == fate)[0])


def test_a_missing_folder_is_refused(refused, tmp_path):
    text = refused(lambda: Trace.load(tmp_path / "nowhere"), TraceError)
    assert text == f"no trace at {tmp_path / 'nowhere'}."


def test_a_plain_file_is_no_trace(refused, tmp_path):
    file = tmp_path / "trace.parquet"
    file.write_text("hello")
    assert "not a trace" in refused(lambda: Trace.load(file), TraceError)


def test_another_folder_is_no_trace(refused, tmp_path):
    assert "not a trace" in refused(lambda: Trace.load(tmp_path), TraceError)


@pytest.mark.parametrize("name", TABLE_FILES)
def test_a_missing_table_is_named_as_missing(damaged, folder, name):
    (folder / f"{name}.parquet").unlink()
    text = damaged()
    assert f"{name}.parquet" in text
    assert any(word in text.lower() for word in ("missing", "no such file", "not found", "no file"))


@pytest.mark.parametrize("name", TABLE_FILES)
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_table_is_refused(damaged, folder, name, keep):
    file = folder / f"{name}.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    assert f"{name}.parquet" in damaged()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, b"hello", bytes(1000)])
def test_a_table_of_garbage_is_refused(damaged, folder, content):
    (folder / "jobs.parquet").write_bytes(content)
    assert "jobs.parquet" in damaged()


def test_a_folder_in_place_of_a_table_is_refused(damaged, folder):
    (folder / "jobs.parquet").unlink()
    (folder / "jobs.parquet").mkdir()
    assert "jobs.parquet" in damaged()


def test_a_table_under_another_tables_name_is_refused(damaged, folder):
    shutil.copy(folder / "jobs.parquet", folder / "steps.parquet")
    assert "steps.parquet" in damaged()


def test_a_column_name_that_is_no_text_is_refused(damaged, folder):
    file = folder / "jobs.parquet"
    file.write_bytes(file.read_bytes().replace(b"draw", b"\xffraw"))
    assert "jobs.parquet" in damaged()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b"3",
        b"{}",
        b'{"schema_version": 1}',
        b"{" * 50,
        b"\xff\xfe\x00",
        bytes(100),
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b"[1, 2]",
        b"true",
        b'"schema_version"',
    ],
    ids=lambda content: repr(content[:16]),
)
def test_a_header_of_garbage_is_refused(damaged, folder, content):
    (folder / "header.json").write_bytes(content)
    assert "header.json" in damaged()


@pytest.mark.parametrize("depth", [10**5, 10**6])
def test_a_header_that_is_nested_too_deeply_is_refused(damaged, folder, depth):
    content = (folder / "header.json").read_text()
    deep = '"versions": ' + '{"a": ' * depth + "1" + "}" * depth
    (folder / "header.json").write_text(content.rstrip().rstrip("}") + ", " + deep + "}")
    assert damaged() == "trace  is damaged: header.json is nested too deeply."


@pytest.mark.parametrize("said", [[1, 2], 3, None, "schema_version", True])
def test_a_header_that_is_no_table_is_named_as_such(damaged, folder, said):
    (folder / "header.json").write_text(json.dumps(said))
    assert damaged() == f"trace  is damaged: header.json must hold a table, {{...}}, got {said!r}."


@pytest.mark.parametrize(
    "change",
    [{"y" * 10**6: 1}, {"schema_version": "z" * 10**6}, {"schema_version": [1] * 10**5}],
    ids=["name", "version", "list"],
)
def test_a_refusal_stays_short_whatever_the_header_holds(damaged, folder, change):
    edit_header(folder, **change)
    assert len(damaged()) < 200


@pytest.mark.parametrize("n_workers", [10**12, 2**62])
def test_more_workers_than_memory_has_room_for_are_refused(damaged, folder, n_workers):
    """A summary has numbers for each of them."""
    edit_header(folder, n_workers=n_workers)
    assert f"{n_workers} workers would take" in damaged()


@pytest.mark.parametrize("change", [{"seed": 1}, {"method": "pure"}, {"end_time": 29.5}])
def test_a_header_that_was_changed_is_refused(damaged, folder, change):
    """Each value could be; only the checksum tells that it was not."""
    file = folder / "header.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert damaged() == "trace  is damaged: header.json: it is not what was written."


def test_one_flipped_bit_in_a_header_is_refused_or_changes_nothing(folder, trace):
    """All of them: only a sign between the entries may become another such sign."""
    file = folder / "header.json"
    whole = file.read_bytes()
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        file.write_bytes(content)
        try:
            assert Trace.load(folder).equals(trace)
        except TraceError:
            continue
        assert whole[place // 8] in b" \n"


def test_a_header_without_a_checksum_is_read(folder, trace):
    """As they were written before there was one."""
    edit_header(folder)
    assert Trace.load(folder).equals(trace)


def test_a_header_without_versions_is_read(folder):
    header = bare_header(folder)
    del header["versions"]
    (folder / "header.json").write_text(json.dumps(header))
    assert Trace.load(folder).header.versions == {}


@pytest.mark.parametrize("name", TABLE_FILES)
def test_one_flipped_bit_in_a_table_is_refused_or_changes_nothing(refused, folder, trace, name):
    """Whatever is read is under a checksum; a bit of the file's own notes may be flipped unseen."""
    file = folder / f"{name}.parquet"
    whole = file.read_bytes()
    refusals = []
    for bit in range(3, 8 * len(whole), 59):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            assert Trace.load(folder).equals(trace)
        except TraceError as error:
            refusals.append(str(error))
    assert not any("\n" in text for text in refusals)
    assert len(refusals) > len(whole) / 59


def test_a_truncated_header_is_refused(damaged, folder):
    content = (folder / "header.json").read_bytes()
    for size in range(0, len(content), 7):
        (folder / "header.json").write_bytes(content[:size])
        assert "header.json" in damaged()


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, -1, 1.0, True])
def test_another_schema_version_is_refused(damaged, folder, version):
    edit_header(folder, schema_version=version)
    assert "schema version" in damaged()


def edit_header(folder: Path, **changes: object) -> None:
    """Change entries of the header, as if it had been written so: without a checksum."""
    file = folder / "header.json"
    file.write_text(json.dumps(bare_header(folder) | changes))


def bare_header(folder: Path) -> dict[str, object]:
    """What a header holds, without its checksum: what traces had before there was one."""
    header = json.loads((folder / "header.json").read_text())
    del header["checksum"]
    return header


@pytest.mark.parametrize("name", ["method", "times", "n_workers", "seed", "end_time", "stopped_by"])
def test_a_header_without_an_entry_is_refused(damaged, folder, name):
    file = folder / "header.json"
    header = bare_header(folder)
    del header[name]
    file.write_text(json.dumps(header))
    assert name in damaged()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("surprise", 1),
        ("n_workers", 0),
        ("n_workers", -4),
        ("n_workers", 4.0),
        ("n_workers", "4"),
        ("n_workers", None),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", "0"),
        ("end_time", -1.0),
        ("end_time", NAN),
        ("end_time", INF),
        ("end_time", "29.0"),
        ("end_time", None),
        ("end_time", 10**400),
        ("method", 3),
        ("method", None),
        ("times", []),
        ("stopped_by", None),
        ("versions", 3),
        ("recipe", 3),
        ("bound", [1]),
        ("bound", {"smoothness": "1"}),
        ("bound", {"smoothness": NAN}),
        ("may_skip", "surprise"),
        ("may_skip", [1]),
    ],
    ids=lambda part: repr(part)[:12],
)
def test_a_header_with_an_entry_that_cannot_be_is_refused(damaged, folder, name, value):
    edit_header(folder, **{name: value})
    assert name in damaged()


def test_a_field_that_is_not_known_is_passed_over_if_its_writer_says_so(damaged, folder, trace):
    """A reader refuses only what it cannot understand."""
    edit_header(folder, surprise=1, other={}, may_skip=["versions", "surprise", "absent"])
    assert "has an entry 'other' that this asgrad does not know" in damaged()
    file = folder / "header.json"
    file.write_text(file.read_text().replace('"absent"', '"other"'))
    assert Trace.load(folder).equals(trace)


def test_a_header_from_before_there_were_recipes_is_read(folder, trace):
    """Then the recipe is the method alone, and nothing is bound."""
    header = bare_header(folder)
    for name in ("recipe", "bound", "may_skip"):
        del header[name]
    (folder / "header.json").write_text(json.dumps(header))
    loaded = Trace.load(folder)
    assert loaded.equals(trace)
    assert loaded.header.recipe == "ringmaster:max_delay=2"
    assert loaded.header.bound == {}


def test_fewer_workers_than_the_jobs_name_are_refused(damaged, folder):
    edit_header(folder, n_workers=3)
    assert "worker must lie in" in damaged()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("jobs", lambda table: table.drop_columns(["draw"])),
        ("jobs", lambda table: table.append_column("more", table["draw"])),
        ("jobs", lambda table: table.rename_columns(["who", *table.column_names[1:]])),
        (
            "jobs",
            lambda table: pa.Table.from_arrays(
                [*table.columns, table["worker"]], names=[*table.column_names, "worker"]
            ),
        ),
        ("steps", lambda table: table.rename_columns(["TIME"])),
        ("contributions", lambda table: table.drop_columns(["entry"])),
    ],
)
def test_wrong_columns_are_refused(damaged, folder, name, change):
    rewrite(folder / f"{name}.parquet", change)
    assert f"{name}.parquet" in damaged()


def test_many_columns_with_long_names_are_refused_in_a_short_line(damaged, folder):
    columns = {f"{number:09000d}": [1.0] for number in range(100)}
    pq.write_table(pa.table(columns), folder / "steps.parquet")
    assert len(damaged()) < 200


@pytest.mark.parametrize(
    ("name", "column", "kind"),
    [
        ("jobs", "worker", pa.int64()),
        ("jobs", "read_step", pa.int32()),
        ("jobs", "fate", pa.int64()),
        ("jobs", "draw", pa.float64()),
        ("jobs", "arrival_time", pa.float32()),
        ("jobs", "worker", pa.string()),
        ("contributions", "weight", pa.float32()),
        ("contributions", "entry", pa.int64()),
        ("steps", "time", pa.float32()),
    ],
)
def test_a_wrong_type_is_refused(damaged, folder, name, column, kind):
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(column)
        return table.set_column(place, column, table[column].cast(kind))

    rewrite(folder / f"{name}.parquet", change)
    text = damaged()
    assert f"{name}.parquet" in text
    assert column in text


@pytest.mark.parametrize("name", TABLE_FILES)
def test_empty_cells_are_refused(damaged, folder, name):
    def change(table: pa.Table) -> pa.Table:
        column = table.column_names[-1]
        cells = [None, *table[column].to_pylist()[1:]]
        return table.set_column(
            table.num_columns - 1, column, pa.array(cells, table[column].type)
        )  # fmt: skip

    rewrite(folder / f"{name}.parquet", change)
    assert "empty cells" in damaged()


def set_cell(folder: Path, name: str, column: str, row: int, value: object) -> None:
    """Change one cell of a table."""

    def change(table: pa.Table) -> pa.Table:
        columns = {key: table[key].to_numpy().copy() for key in table.column_names}
        columns[column][row] = value
        return pa.table(columns)

    rewrite(folder / f"{name}.parquet", change)


@pytest.mark.parametrize(
    ("name", "column", "row", "value", "words"),
    [
        ("jobs", "worker", 2, 4, ["jobs", "worker", "row 2"]),
        ("jobs", "worker", 3, -1, ["jobs", "worker", "row 3"]),
        ("jobs", "read_step", 5, 31, ["jobs", "read_step", "row 5"]),
        ("jobs", "read_step", 5, -1, ["jobs", "read_step", "row 5"]),
        ("jobs", "draw", 4, -1, ["jobs", "draw", "row 4"]),
        ("jobs", "fate", 0, 5, ["jobs", "fate", "row 0"]),
        ("jobs", "fate", 0, -1, ["jobs", "fate", "row 0"]),
        ("jobs", "assign_time", 1, NAN, ["jobs", "row 1"]),
        ("jobs", "assign_time", 1, INF, ["jobs", "row 1"]),
        ("contributions", "job", 6, -1, ["contributions: job", "row 6"]),
        ("contributions", "job", 6, 10**6, ["contributions: job", "row 6"]),
        ("contributions", "entry", 7, -2, ["contributions", "entry", "row 7"]),
        ("contributions", "first_step", 20, 3, ["contributions", "sorted"]),
        ("contributions", "first_step", 0, -1, ["row 0"]),
        ("contributions", "end_step", 8, 8, ["contributions", "end_step", "row 8"]),
        ("contributions", "end_step", 29, 31, ["contributions", "end_step", "row 29"]),
        ("contributions", "weight", 9, NAN, ["contributions", "weight", "row 9"]),
        ("contributions", "weight", 9, -INF, ["contributions", "weight", "row 9"]),
        ("steps", "time", 9, NAN, ["steps", "time", "row 9"]),
        ("steps", "time", 29, INF, ["steps", "time", "row 29"]),
        ("steps", "time", 0, -1.0, ["steps", "time", "row 0"]),
        ("steps", "time", 20, 0.5, ["steps", "time", "row 20"]),
    ],
)
def test_a_value_out_of_range_is_refused(damaged, folder, name, column, row, value, words):
    set_cell(folder, name, column, row, value)
    text = damaged()
    assert all(word in text for word in words), text


def test_contributions_out_of_order_are_refused(damaged, folder):
    rewrite(
        folder / "contributions.parquet",
        lambda table: pa.concat_tables([table.slice(1), table.slice(0, 1)]),
    )
    assert "sorted" in damaged()


def test_a_job_used_before_the_model_it_read_is_refused(damaged, folder, trace):
    # The job of the fifth row reads the model after the last step, which it entered before.
    job = int(trace.contributions.job[4])
    set_cell(folder, "jobs", "read_step", job, 30)
    assert "read" in damaged()


@pytest.mark.parametrize("fate", [Fate.DROPPED, Fate.IN_FLIGHT, Fate.CANCELLED, Fate.LOST])
def test_a_used_job_of_another_fate_is_refused(damaged, folder, trace, fate):
    row = first_job(trace, Fate.APPLIED)
    set_cell(folder, "jobs", "fate", row, fate)
    assert f"row {row}" in damaged()


@pytest.mark.parametrize("fate", [Fate.DROPPED, Fate.IN_FLIGHT])
def test_an_applied_job_that_no_step_used_is_refused(damaged, folder, trace, fate):
    row = first_job(trace, fate)
    set_cell(folder, "jobs", "fate", row, Fate.APPLIED)
    text = damaged()
    assert "applied" in text
    assert f"row {row}" in text


@pytest.mark.parametrize("fate", [Fate.APPLIED, Fate.DROPPED])
@pytest.mark.parametrize("column", ["arrival_time", "start_time"])
def test_a_job_that_arrived_without_a_time_is_refused(damaged, folder, trace, fate, column):
    set_cell(folder, "jobs", column, first_job(trace, fate), NAN)
    assert "jobs" in damaged()


def test_a_job_that_arrives_before_it_starts_is_refused(damaged, folder, trace):
    set_cell(folder, "jobs", "arrival_time", first_job(trace, Fate.DROPPED), -1.0)
    assert "jobs" in damaged()


@pytest.mark.parametrize("name", TABLE_FILES)
def test_a_table_without_rows_does_not_fit_the_others(damaged, folder, name):
    rewrite(folder / f"{name}.parquet", lambda table: table.slice(0, 0))
    assert name in damaged()


def test_a_table_of_another_run_does_not_fit(damaged, folder, tmp_path):
    short = simulate(Ringmaster(max_delay=2), Linear(), n_workers=4, steps=7)
    shutil.copy(short.save(tmp_path / "short") / "steps.parquet", folder / "steps.parquet")
    assert "steps" in damaged()


def test_loading_changes_nothing(folder, trace):
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    assert Trace.load(folder).equals(trace)
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


TABLES = {
    "a row outside the table that lasts two steps": [(0, -1, 0, 2, 1.0)],
    "two weights in one entry at one step": [(0, 3, 0, 2, 1.0), (1, 3, 0, 2, 0.5)],
    "one of two jobs leaves the entry": [(0, 3, 0, 1, 1.0), (1, 3, 0, 2, 1.0)],
    "one of two jobs comes back": [(0, 3, 0, 1, 1.0), (1, 3, 0, 1, 1.0), (0, 3, 1, 2, 1.0)],
    "a job moves between entries": [(0, 3, 0, 1, 1.0), (0, 4, 1, 2, 1.0)],
    "a job enters twice at once": [(0, 3, 0, 2, 1.0), (0, 3, 1, 2, 1.0)],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_no_server_could_keep_is_refused(refused, tmp_path, name):
    """What holding, weighing and clearing entries cannot give would replay wrongly."""
    from asgrad.trace import Contributions, Header, Jobs

    rows = TABLES[name]
    used = sorted({row[0] for row in rows})
    fate = np.array([1 if job in used else 0 for job in range(2)], np.int8)
    jobs = Jobs(
        np.zeros(2, np.int32), np.zeros(2, np.int64), np.arange(2), np.zeros(2), np.zeros(2),
        np.ones(2), fate,
    )  # fmt: skip
    kinds = (np.int64, np.int32, np.int64, np.int64, np.float64)
    columns = (np.array(c, kind) for c, kind in zip(zip(*rows, strict=True), kinds, strict=True))
    header = Header("x", "y", 1, 0, 2.0, "steps")
    trace = Trace(jobs, Contributions(*columns), np.array([1.0, 2.0]), header)
    trace.save(tmp_path / "trace")
    assert "contributions" in refused(lambda: Trace.load(tmp_path / "trace"), TraceError)
