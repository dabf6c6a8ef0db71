"""Access tokens that need not be stored to be known."""

from __future__ import annotations

import hashlib
import hmac


def session_token(key: bytes, uid: str, run: int, member: str) -> str:
    """Return the token with which a member opens a run of a session.

    HMAC-SHA256 of uid, run and member: the same again after a crash, another one for the next run.

    Parameters
    ----------
    key
        The operator's key.
    uid
        The session's uid.
    run
        Which run of it.
    member
        The user name of whom the token lets in.
    """
    return hmac.new(key, f"{uid}/{run}/{member}".encode(), hashlib.sha256).hexdigest()
