"""A real cluster, real images and what must hold on them. Nothing here is imported by what we ship."""
