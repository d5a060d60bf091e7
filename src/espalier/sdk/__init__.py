"""The Python face: one client, in process or over HTTP, with the same types and the same exceptions."""
