"""The Inception network that FID and KID are defined on, and the resizing that each of their forms does."""
