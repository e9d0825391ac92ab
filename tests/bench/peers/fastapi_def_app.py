"""FastAPI with a plain `def` handler: FastAPI runs it on its thread pool."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

import common

app = FastAPI(openapi_url=None)


async def verified_fields(request: Request) -> dict:
    """Read the body, verify it and parse the form: a plain `def` handler can't await the body."""
    body = await request.body()
    header = request.headers.get
    if not common.verified(header("x-slack-request-timestamp"), header("x-slack-signature"), body):
        raise HTTPException(401)
    return common.fields_of(body)


@app.post("/slack/commands")
def greet(fields: Annotated[dict, Depends(verified_fields)]):
    """Answer one command."""
    return JSONResponse(common.greet(fields))
