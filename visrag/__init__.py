"""visrag: find the page that answers a question, and show where on the page the answer stands."""

__version__ = "0.1.0"
