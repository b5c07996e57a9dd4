"""The workers of the queue: a Celery application over visrag's steps."""
