"""The web page of a network, and the JavaScript module that it and other pages use."""
