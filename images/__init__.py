"""The container images of the project and the tool that builds them."""
