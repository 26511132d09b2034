"""What the network's input has to be. Known without the network, to processes that do without."""

# MMF's preprocessing: BGR, 0..255, nothing but the mean taken off.
PIXEL_MEAN_BGR = (102.9801, 115.9465, 122.7717)
SIZE_DIVISIBILITY = 32
