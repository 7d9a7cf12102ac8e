"""Models behind an HTTP interface: the requests, and the forms of the four interfaces."""
