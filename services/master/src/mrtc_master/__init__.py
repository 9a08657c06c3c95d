"""Registry, placement and liveness of media nodes; reaps what died."""
