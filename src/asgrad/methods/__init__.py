"""The server's decisions, a file each: who computes what next, and which gradients make a step."""

from asgrad.methods.ace import ACE
from asgrad.methods.ata import ATA
from asgrad.methods.base import AnyMethod, Method, Opening, Server
from asgrad.methods.buffered import Buffered
from asgrad.methods.local_sgd import LocalSGD
from asgrad.methods.malenia import Malenia
from asgrad.methods.mindflayer import MindFlayer
from asgrad.methods.minibatch import Minibatch
from asgrad.methods.pure import Pure
from asgrad.methods.random import Random
from asgrad.methods.rennala import Rennala
from asgrad.methods.ringleader import Ringleader
from asgrad.methods.ringmaster import Ringmaster
from asgrad.methods.shuffled import Reshuffling, Shuffled
from asgrad.methods.sync import MSync, Sync

__all__ = [
    "ACE",
    "ATA",
    "AnyMethod",
    "Buffered",
    "LocalSGD",
    "MSync",
    "Malenia",
    "Method",
    "MindFlayer",
    "Minibatch",
    "Opening",
    "Pure",
    "Random",
    "Rennala",
    "Reshuffling",
    "Ringleader",
    "Ringmaster",
    "Server",
    "Shuffled",
    "Sync",
]
