"""Flask, for gunicorn. Slow work runs on a thread pool."""

from concurrent.futures import ThreadPoolExecutor

from flask import Flask, abort, jsonify, request

import common

app = Flask(__name__)
pool = ThreadPoolExecutor(200)


@app.post("/slack/commands")
def commands():
    """Verify, parse and answer one command."""
    body = request.get_data()
    header = request.headers.get
    if not common.verified(header("X-Slack-Request-Timestamp"), header("X-Slack-Signature"), body):
        abort(401)
    fields = common.fields_of(body)
    if fields["command"] == "/slow":
        pool.submit(common.finish_slowly, fields)
        return jsonify(common.started(fields))
    return jsonify(common.hello(fields))
