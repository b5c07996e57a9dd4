"""The HTTP server: the API for programs, and the page for reviewers."""
