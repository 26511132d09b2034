"""Images and boxes, from files to the network's input."""
