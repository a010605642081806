"""The HTTP API of feedback: raters are asked and answer, applications send the thumbs of their users.

    GET  /v1/queues/{queue}/next     the next item, leased to the rater of the token; 204 where nothing is left
    POST /v1/judgements              what the rater says of an item
    POST /v1/judgements/batch        of several items
    POST /v1/queues/{queue}/thumbs   a response of an application, and what its user thought of it
    GET  /v1/queues                  how the queues stand
    GET  /v1/health                  whether the database answers; for everybody

The laws: a judgement is answered with 200 once it is on the disk, and never before; a key (`key`, or the header
`Idempotency-Key`) sent again with the same content gets the first answer, with other content 409; keys of two tokens
never meet. The server's clock says when.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import sqlalchemy as sql
from fastapi import Depends, FastAPI, Header, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.judge import Judged, Refused, Said, judge_all
from gristmill.dataops.feedback.queues import Shown, next_items
from gristmill.dataops.feedback.standing import status
from gristmill.dataops.feedback.thumbs import Thumb, thumbs_all
from gristmill.dataops.feedback.tokens import Grant
from gristmill.flows.service.bodies import Fault, Judgement, Judgements, Kept, Next, Queue, Queues, Results, Thumbs
from gristmill.flows.service.closer import Closer
from gristmill.flows.service.gate import Denied, Gate, Grants, Rates, printable, unavailable
from gristmill.flows.service.writer import Unavailable, Writer

LOG = logging.getLogger("gristmill.service")
MOST_BYTES = 4_000_000  # of a body: a prompt and a response at their longest, in most scripts
_STATUS = {
    "bad_key": 422, "bad_value": 422, "key_reused": 409, "not_shown": 403, "unknown_item": 404, "unknown_queue": 404,
    "unknown_rater": 404, "wrong_kind": 409,
}  # fmt: skip
_REPLAYED = {"Idempotency-Replayed": "true"}
_Name = Annotated[str, Path(max_length=200)]
_Key = Annotated[str | None, Header(alias="Idempotency-Key")]
_FAULTS: dict[int | str, dict[str, Any]] = {
    code: {"model": Fault} for code in (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
}


def _granted(scope: str, told: str) -> Callable[[Request], Awaitable[Grant]]:
    """What the token allows, if it is of this scope; else 403."""

    async def granted(request: Request) -> Grant:
        grant: Grant = request.state.grant
        if grant.scope != scope:
            raise Denied(403, "wrong_scope", f"this token is of scope {grant.scope}; {told}")
        return grant

    return granted


_Rater = Annotated[Grant, Depends(_granted("rate", "raters need one of scope rate"))]
_Sender = Annotated[Grant, Depends(_granted("send", "applications need one of scope send"))]


def feedback_app(
    db: Database,
    *,
    closing: Callable[[], Any],
    rate: float = 200.0,
    sweep: float = 30.0,
    most_bytes: int = MOST_BYTES,
) -> FastAPI:
    """The application. `closing` closes batches that are due (in a thread, one at a time): when a threshold was
    reached, and every `sweep` seconds. `rate` is judgements a second for each token, `most_bytes` those of a body."""
    rates = Rates(rate)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        writer = Writer(
            {
                "judgement": lambda said: judge_all(db, said),
                "thumb": lambda said: thumbs_all(db, said),
                "next": lambda asked: next_items(db, asked),
            }
        )
        closer = Closer(db, closing, sweep)
        app.state.writer, app.state.closer = writer, closer
        yield
        await writer.end()
        await asyncio.to_thread(closer.end)

    app = FastAPI(
        title="gristmill feedback", version="1", lifespan=life, openapi_url="/v1/openapi.json", docs_url=None,
        redoc_url=None, responses=_FAULTS,
    )  # fmt: skip
    app.add_middleware(Gate, known=Grants(db), rates=rates, most_bytes=most_bytes)
    _answer_errors(app)

    async def keep(kind: str, said: list[Any]) -> list[Judged | Refused]:
        found = await app.state.writer.write(kind, said)
        if any(isinstance(one, Judged) and not one.again for one in found):
            app.state.closer.wake()
        return found

    @app.get("/v1/queues/{queue}/next", response_model=Next, responses={204: {"description": "nothing is left"}})
    async def next_of(queue: _Name, grant: _Rater) -> Response:
        """What to judge now; the same item until it is judged or the lease ends."""
        [found] = await app.state.writer.write("next", [(queue, grant.rater)])
        if found is None:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        if isinstance(found, InputError):
            raise Denied(404, "unknown_queue", f"no queue {queue!r}")
        return JSONResponse(_next(found), headers={"Cache-Control": "no-store"})

    @app.post("/v1/judgements", response_model=Kept)
    async def judge(body: Judgement, grant: _Rater, header: _Key = None) -> Response:
        """Keep one judgement; again, and with another key, to correct it."""
        [found] = await keep("judgement", [_said(grant, body, _one_key(body.key, header))])
        return _answer(found)

    @app.post("/v1/judgements/batch", response_model=Results)
    async def judge_many(body: Judgements, grant: _Rater) -> Response:
        """Keep those that can be kept, and say of each what became of it."""
        rates.pay(grant.token, len(body.judgements) - 1)
        found = await keep("judgement", [_said(grant, one, one.key) for one in body.judgements])
        return JSONResponse({"results": [_told(one) for one in found]})

    @app.post("/v1/queues/{queue}/thumbs", response_model=Kept)
    async def thumb(queue: _Name, body: Thumbs, grant: _Sender, header: _Key = None) -> Response:
        """Keep what a user thought of a response, in a queue of kind thumbs."""
        prompt = body.messages if body.prompt is None else body.prompt
        if prompt is None or (body.prompt is not None and body.messages is not None):
            raise Denied(422, "invalid", "either `prompt` or `messages`, and not both")
        one = Thumb(
            queue, prompt, body.response, body.label, f"{grant.name}/{body.user}",
            _own(grant, _one_key(body.key, header)), body.policy, body.tools, body.comment, body.client_at,
        )  # fmt: skip
        [found] = await keep("thumb", [one])
        return _answer(found)

    reading = asyncio.Lock()  # counting a large queue takes a while: one at a time

    @app.get("/v1/queues", response_model=Queues)
    async def queues() -> Response:
        """How all queues stand."""
        async with reading:
            found = await asyncio.to_thread(status, db)
        rows = [{name: one[name] for name in Queue.model_fields if name != "batches"} for one in found]
        counted = [row | {"batches": len(one["batches"])} for row, one in zip(rows, found, strict=True)]
        return JSONResponse({"queues": counted, "closing": app.state.closer.failed})

    @app.get("/v1/health")
    async def health() -> dict[str, str]:
        """Whether judgements can be taken."""
        await asyncio.to_thread(_reach, db)
        return {"status": "ok"}

    return app


def _one_key(body: str | None, header: str | None) -> str:
    """The key of a judgement, from where it was given. Raises Denied."""
    if body is not None and header is not None and body != header:
        raise Denied(422, "bad_key", "`key` and the header Idempotency-Key differ: send one of them")
    key = header if body is None else body
    if key is None or not 0 < len(key) <= 128:
        raise Denied(422, "bad_key", "a judgement needs a `key` (or the header Idempotency-Key) of 1 to 128 characters")
    return key


def _own(grant: Grant, key: str) -> str:
    """The key as it is kept: two tokens may use the same."""
    return f"{grant.token}:{key}"


def _said(grant: Grant, body: Judgement, key: str) -> Said:
    return Said(body.item, grant.rater or "", body.value, _own(grant, key), body.comment, body.client_at)


def _next(shown: Shown) -> dict[str, Any]:
    return {name: getattr(shown, name) for name in Next.model_fields}


def _told(found: Judged | Refused) -> dict[str, Any]:
    if isinstance(found, Refused):
        return {"error": found.why, "message": printable(_why(found))}
    return {"item": found.item, "version": found.version, "judged_at": found.judged_at}


def _answer(found: Judged | Refused) -> Response:
    if isinstance(found, Refused):
        raise Denied(_STATUS[found.why], found.why, _why(found))
    return JSONResponse(_told(found), headers=_REPLAYED if found.again else None)


def _why(refused: Refused) -> str:
    """In words; without the key as it is kept."""
    reused = "this key was used for another judgement: take a new one"
    return reused if refused.why == "key_reused" else str(refused)


def _reach(db: Database) -> None:
    with db.read() as connection:
        connection.execute(sql.select(1))


def _answer_errors(app: FastAPI) -> None:
    """Every error as {error, message}; what went wrong inside is in the log alone."""

    @app.exception_handler(Denied)
    async def denied(_: Request, error: Denied) -> Response:
        return error.answer()

    @app.exception_handler(Unavailable)
    async def busy(_: Request, error: Unavailable) -> Response:
        return unavailable(str(error)).answer()

    @app.exception_handler(sql.exc.OperationalError)
    async def database(_: Request, error: sql.exc.OperationalError) -> Response:
        LOG.error("the database failed: %s", error.orig)
        return unavailable("the database does not answer; send it again").answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = error.errors()
        if any(one["type"] == "json_invalid" for one in faults):
            return Denied(400, "bad_json", f"the body is no JSON: {faults[0]['ctx']['error']}").answer()
        told = dict.fromkeys(f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in faults)
        return Denied(422, "invalid", "; ".join(list(told)[:5])).answer()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        words = {400: "bad_json", 404: "unknown_path", 405: "wrong_method"}
        return Denied(error.status_code, words.get(error.status_code, "failed"), str(error.detail)).answer()

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return Denied(500, "failed", "an error of the service, which its log tells; send it again").answer()
