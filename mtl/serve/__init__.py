"""What stands between the network and the page: guards of every request, and the REST routes."""
