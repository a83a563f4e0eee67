"""The web server: a page of the network, and a JavaScript client for other pages."""
