"""Where work comes in: the job queue."""
