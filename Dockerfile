# Nothing to install: Python, the file and its page. `docker stop` waits 10 seconds: 5 for commands, 5 to tell users.
FROM python:3.13-slim
WORKDIR /app
COPY *.py index.html ./
RUN python -m compileall -q .
ENV PORT=8080 SLACKBOT_GRACE_SECONDS=5
USER nobody
CMD ["python", "-m", "slackbot"]
