"""
A real kind cluster where no image can be pulled: engine, node image and tools from packages and modules.

Debian brings Docker and the roots of images, Go modules bring kind and Kubernetes.  Whoever can reach an image
registry needs none of this: there kind pulls its node image.  `python -m tests.kind.rig --help` tells the commands.

Read in this order: `packages` and `golang` (what is fetched and compiled), `images` (how images are written),
`node_image` (what a node is made of), `parts` (the cache), `engine` (Docker in a network of its own).
"""
