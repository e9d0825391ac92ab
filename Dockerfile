# Nothing to install: Python, the file and its page. Whoever stops it waits 10 seconds, so it has 5 for itself.
FROM python:3.13-slim
WORKDIR /app
COPY *.py index.html ./
RUN python -m compileall -q .
ENV PORT=8080 SLACKBOT_GRACE_SECONDS=5
USER nobody
CMD ["python", "-m", "slackbot"]
