"""The inside of the convex hull: arrays of compositions, systems and certificates, and what solves and changes them."""
