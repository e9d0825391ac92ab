"""FastAPI with an `async def` handler, which reads the raw body once and returns a response."""

from fastapi import BackgroundTasks, FastAPI, Request, Response
from fastapi.responses import JSONResponse

import common

app = FastAPI(openapi_url=None)


@app.post("/slack/commands")
async def commands(request: Request, background: BackgroundTasks):
    """Verify, parse and answer one command."""
    body = await request.body()
    header = request.headers.get
    if not common.verified(header("x-slack-request-timestamp"), header("x-slack-signature"), body):
        return Response(status_code=401)
    fields = common.fields_of(body)
    if fields["command"] == "/slow":
        background.add_task(common.finish_slowly, fields)
        return JSONResponse(common.started(fields), background=background)
    return JSONResponse(common.hello(fields))
