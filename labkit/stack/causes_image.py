"""Why an image did not come to a node, and what helps."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["image_cause"]

_MIRROR = "set LABKIT_IMAGE_REGISTRY to a mirror of its registry"
_LOAD = "bring it by hand (`docker pull {image}`, `kind load docker-image {image} --name CLUSTER`)"

# Signs in what container runtimes say, the reason in words, and what to do; the first that fits.
_REASONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("toomanyrequests", "429 Too Many Requests", "rate limit"),
        "the registry's rate limit is reached (toomanyrequests)",
        "Wait until it is lifted (Docker Hub counts pulls of six hours), {mirror}, or {load}.",
    ),
    (
        ("no space left on device",),
        "the node's disk is full",
        "Free some: `docker system df` shows what takes it, `docker system prune` deletes what nothing uses.",
    ),
    (
        ("no match for platform", "no matching manifest", "exec format error"),
        "there is none for the node's processor",
        "Use a node of another architecture, or an image that is built for this one.",
    ),
    (
        ("no such host", "i/o timeout", "network is unreachable", "no route to host", "server misbehaving",
         "TLS handshake timeout", "connection refused", "connection reset", "context deadline exceeded", "dial tcp",
         "proxyconnect"),
        "the node does not reach the registry",
        "Is this machine online, and does its proxy hold for containers too? Otherwise {mirror}, or {load}.",
    ),
    (
        ("x509", "certificate"),
        "the node does not trust the registry's certificate",
        "A proxy that opens TLS is the usual reason; {mirror}, or {load}.",
    ),
    (
        ("unauthorized", "authentication required", "403 Forbidden", "401 Unauthorized", "access denied",
         "insufficient_scope", "authorization failed", "denied"),
        "the registry does not give it to strangers, or has none of this name",
        "Check the name; if it is right, {mirror}, or {load}.",
    ),
    (
        ("not found", "manifest unknown", "does not exist"),
        "the registry has no such image",
        "Check the name and the version; a mirror (LABKIT_IMAGE_REGISTRY) may lack it. Or {load}.",
    ),
)  # fmt: skip


def image_cause(image: str, reason: str, said: str, events: Sequence[str] = ()) -> tuple[str, str]:
    """
    Why an image is not there, and what to do.

    Args:
        image: its name, as the pod has it.
        reason: of the waiting container: ErrImagePull, ImagePullBackOff, ErrImageNeverPull, InvalidImageName, ….
        said: the message beside it; while kubelet backs off, older ones say nothing there.
        events: messages of the pod's events `Failed`, which then do.

    Returns:
        The cause in one line that does not change while it lasts, and the advice.

    >>> image_cause("redis:7", "ErrImagePull", "toomanyrequests: You have reached your pull rate limit")[0]
    "image redis:7 cannot be pulled: the registry's rate limit is reached (toomanyrequests)"
    """
    load = _LOAD.format(image=image)
    if reason == "InvalidImageName":
        return f"{image!r} is not the name of an image", "Correct it in the manifest, or in LABKIT_IMAGE_REGISTRY."
    if reason == "ErrImageNeverPull":
        return f"image {image} is not on the node, and its pod forbids to pull it", _capital(f"{load}.")
    if _is_made_here(image):
        how = f"It is made on this machine and has to be loaded: `kind load docker-image {image} --name CLUSTER`."
        return f"image {image} is not on the node, and no registry has it", how
    words = " ".join([said, *events])
    for signs, text, how in _REASONS:
        if any(sign.lower() in words.lower() for sign in signs):
            return f"image {image} cannot be pulled: {text}", how.format(mirror=_MIRROR, load=load)
    detail = next((one for one in (said, *reversed(events)) if one and not one.startswith("Back-off")), reason)
    return f"image {image} cannot be pulled: {' '.join(detail.split())}", f"{_capital(_MIRROR)}, or {load}."


def _is_made_here(image: str) -> bool:
    name = image.removeprefix("docker.io/library/")
    return name.startswith(("localhost/", "labkit-"))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
