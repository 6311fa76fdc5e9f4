"""A Flask application with one empty view, for the baseline."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def empty() -> str:
    return ""
