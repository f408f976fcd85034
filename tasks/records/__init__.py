"""The records that flow through the data stages, and the files that hold them."""
