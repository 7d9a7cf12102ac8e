"""Models behind an HTTP API: requests, and the formats of the four APIs."""
