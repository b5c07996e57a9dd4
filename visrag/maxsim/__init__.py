"""MaxSim: the sum over a question's tokens of weight × the best match among a page's vectors."""

from .reference import Block, maxsim, score_pages, token_matches

__all__ = ["Block", "maxsim", "score_pages", "token_matches"]
