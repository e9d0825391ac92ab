"""The work that every peer does for a command, by the fastest correct code."""

import hashlib
import hmac
import json
import os
import time
import urllib.parse
import urllib.request

SECRET = os.environ["SLACK_SIGNING_SECRET"].encode()


def verified(timestamp, signature, body):
    """Say whether Slack signed *body* (bytes) within the last 300 seconds."""
    try:
        if abs(time.time() - int(timestamp)) > 300:
            return False
        base = b"v0:%s:%s" % (timestamp.encode(), body)
        expected = "v0=" + hmac.digest(SECRET, base, hashlib.sha256).hex()
        return hmac.compare_digest(expected.encode(), signature.encode())
    except (TypeError, ValueError, AttributeError):
        return False


def fields_of(body):
    """Parse the form *body* (bytes) into a dict."""
    return dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))


def message(text):
    """Make an answer that only the user sees who sent the command."""
    return {"response_type": "ephemeral", "text": text}


def hello(fields):
    """Answer `/hello`."""
    return message(f"Hello {fields['user_name']}, I received `{fields['text']}`")


def greet(fields):
    """Answer `/greet`, with the text escaped as Slack asks for it."""
    text = fields["text"].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return message(f"Hello {text}!")


def started(fields):
    """Make the first answer to `/slow`."""
    return message(f"started {fields['text']}")


def finish_slowly(fields):
    """Wait two seconds, then post the delayed answer to `/slow`."""
    time.sleep(2)
    request = urllib.request.Request(
        fields["response_url"], json.dumps(message(f"done {fields['text']}")).encode(),
        {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
