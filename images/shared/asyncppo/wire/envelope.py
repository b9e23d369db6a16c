"""The address on every message. Owns who-speaks-of-what; does not own what the receiver does with it.

Receivers refuse, senders are not trusted: a message whose job, epoch, incarnation or target is not the receiver's own is
refused, whatever it says.
"""

import msgspec

from asyncppo.wire.bounds import Identity, Name, Number


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of one message.

    job_uid: the job's uid. epoch: the sync epoch the sender knows. target: name of the member the message is from (member →
    learner) or for (coordinator → member). incarnation: that member's incarnation, a number handed out by the ledger at each
    join; 0 where the message concerns no member.
    """

    job_uid: Identity
    epoch: Number
    target: Name
    incarnation: Number = 0
