"""The OpenAPI document: what is shared by the descriptions of all routes, and the page that shows it."""
