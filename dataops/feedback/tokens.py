"""Tokens: who may speak to the HTTP service, and as whom.

    rate   a token of one rater: it asks for the next item and judges, as nobody but them
    send   a token of an application: it sends the thumbs of its users, who are the raters NAME/USER

The laws: only the SHA-256 of a token is kept, so who reads the database cannot speak for anybody; a token is shown
once, when it is made; a revoked one never counts again, and its name can be given a new secret for the same purpose
alone. A token is 256 random bits, which is why a plain hash is enough. Not covered: tokens that end by themselves.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sql

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.queues import add_rater
from gristmill.dataops.feedback.tables import RATERS, TOKENS
from gristmill.dataops.feedback.values import sound

Scope = Literal["rate", "send"]
_PREFIX = "gristmill_"  # so that a token that leaked into code is found
_NAME = 100  # characters


@dataclass(frozen=True)
class Grant:
    """What a token allows: judging as `rater`, or, where that is None, sending the thumbs of users of `name`."""

    token: int
    name: str
    scope: str
    rater: str | None


def mint(db: Database, name: str, scope: Scope, *, rater: str | None = None) -> str:
    """A new token under a name of its own, or a new secret for a name whose token was revoked.

    `rater` is whom a token of scope `rate` speaks for (default: the name), made known where new. Raises InputError for
    a name that is taken or none, and where a revoked token was for something else.
    """
    if scope not in get_args(Scope):
        raise InputError(f"no scope {scope!r}; there are: {', '.join(get_args(Scope))}")
    if not name.strip() or len(name) > _NAME or "/" in name:
        raise InputError(f"a token's name has 1 to {_NAME} characters and no /, unlike {name[:_NAME]!r}")
    if rater is not None and scope != "rate":
        raise InputError(f"a token of scope {scope} speaks for no one rater: leave the rater out")
    who = add_rater(db, rater or name) if scope == "rate" else None
    token = _PREFIX + secrets.token_urlsafe(32)
    row = {"sha256": digest(token), "made_at": db.clock(), "revoked_at": None}
    with db.write() as connection:
        there = connection.execute(sql.select(TOKENS).where(TOKENS.c.name == sound(name, "a name"))).one_or_none()
        if there is None:
            connection.execute(TOKENS.insert(), {"name": name, "scope": scope, "rater": who, **row})
        elif there.revoked_at is None:
            raise InputError(f"token {name} is in use: revoke it first, or take another name")
        elif (there.scope, there.rater) != (scope, who):
            raise InputError(f"token {name} was for something else ({there.scope}): take another name")
        else:
            connection.execute(TOKENS.update().where(TOKENS.c.id == there.id).values(row))
    return token


def revoke(db: Database, name: str) -> bool:
    """Make a token void; False where it was already. Raises InputError where there is none of that name."""
    with db.write() as connection:
        which = TOKENS.c.name == name
        if connection.execute(sql.select(TOKENS.c.id).where(which)).one_or_none() is None:
            raise InputError(f"no token {name!r}")
        void = TOKENS.update().where(which, TOKENS.c.revoked_at.is_(None)).values(revoked_at=db.clock())
        return connection.execute(void).rowcount == 1


def grants(db: Database) -> dict[str, Grant]:
    """What tokens allow that are not revoked, by their digest."""
    columns = (TOKENS.c.id, TOKENS.c.sha256, TOKENS.c.name, TOKENS.c.scope, RATERS.c.name.label("rater"))
    query = sql.select(*columns).outerjoin(RATERS, TOKENS.c.rater == RATERS.c.id).where(TOKENS.c.revoked_at.is_(None))
    with db.read() as connection:
        return {row.sha256: Grant(row.id, row.name, row.scope, row.rater) for row in connection.execute(query)}


def digest(token: str) -> str:
    """How a token is kept: its SHA-256 in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def listed(db: Database) -> list[dict[str, Any]]:
    """Every token by name, without what it is checked by."""
    columns = (TOKENS.c.name, TOKENS.c.scope, RATERS.c.name.label("rater"), TOKENS.c.made_at, TOKENS.c.revoked_at)
    query = sql.select(*columns).outerjoin(RATERS, TOKENS.c.rater == RATERS.c.id).order_by(TOKENS.c.name)
    with db.read() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]
