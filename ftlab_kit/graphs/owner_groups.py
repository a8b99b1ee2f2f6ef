"""Which part of a graph belongs to an owner: Graphiti's `group_id`.

Graphiti takes letters, digits, - and _ in a group. An owner whose name has only those is a group by
that name. Any other owner gets a readable part and a hash of the whole name, so that two owners
never share a group: `ada@x.org` has the group ada_x_org-210e59f6e61aa3a3, and `ada.x@org` has
ada_x_org-a875600270f36bcc.

An older kit only replaced the other characters, and put both into `ada_x_org`. Such a group is
still opened, once it is clear whose it is: the graph then records its owner, and keeps every other
owner out of it. It is taken to be the owner's where this workspace has loaded every document in it,
each with that content. What two owners had already mixed stays with the first who opens it.
"""

import hashlib
import re
from typing import Any

from ftlab_kit.workspace import Workspace

ALLOWED = re.compile(r"[A-Za-z0-9_-]+")
HASHED = re.compile(r".*-[0-9a-f]{16}")
READABLE_CHARACTERS = 40
OWNER = "owner"  # under which a graph records whose a group is
UNCLAIMED = ""  # owner of documents that an older kit has listed


def group_of(owner: str) -> str:
    """Return the group of an owner; two owners never have the same one."""
    # a name that looks like a hashed one is hashed too, or it could be another owner's group
    if ALLOWED.fullmatch(owner) and not HASHED.fullmatch(owner):
        return owner
    return _hashed(owner)


def _hashed(owner: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", owner)[:READABLE_CHARACTERS] or "owner"
    return f"{readable}-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"


def earlier_group_of(owner: str) -> str:
    """Return the group that an older kit gave an owner, and perhaps another one too."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", owner) or "owner"


async def enter(ws: Workspace, address: str, driver: Any) -> str:
    """Return the owner's group in a graph, and claim its documents that no owner has claimed yet.

    Args:
        ws: The workspace, with its owner.
        address: The graph's address, under which the workspace lists its documents.
        driver: The graph's driver.
    """
    group = await _find(ws, address, driver)
    await _claim_documents(ws, address, driver, group)
    return group


async def _find(ws: Workspace, address: str, driver: Any) -> str:
    """Return the owner's group: that of an older kit where it is the owner's."""
    group, earlier = group_of(ws.owner), earlier_group_of(ws.owner)
    recorded = (await driver.around(earlier, [])).metadata.get(OWNER)
    if recorded == ws.owner:
        return earlier
    if group == earlier:
        return group if recorded is None else _hashed(ws.owner)
    if recorded is None and await _was_loaded_here(ws, address, driver, earlier):
        return await _claim(ws, driver, earlier)
    return group


async def _was_loaded_here(ws: Workspace, address: str, driver: Any, group: str) -> bool:
    """Return whether a group holds documents, and this workspace has loaded each of them."""
    from graphiti_core.nodes import EpisodicNode

    from ftlab_kit.graphs import metadata

    documents = await _documents(driver, group)
    rows = ws.store.rows("documents", graph=address, owner=[ws.owner, UNCLAIMED])
    loaded = {(row["name"], row["content_sha256"]) for row in rows if row["version"]}
    chunks = await EpisodicNode.get_by_group_ids(driver, [group])
    contents = {
        (about.get("document"), about.get("sha256")) for about in map(metadata.of_chunk, chunks)
    }
    return bool(documents) and documents <= {name for name, _ in loaded & contents}


async def _documents(driver: Any, group: str) -> set[str]:
    """Return the names of a group's documents."""
    from graphiti_core.nodes import SagaNode

    return {saga.name for saga in await SagaNode.get_by_group_ids(driver, [group])}


async def _claim(ws: Workspace, driver: Any, group: str) -> str:
    """Record that a group of an older kit is this owner's, unless another was faster."""
    from ftlab_kit.graphs.drivers.protocol import Change

    async with driver.write_transaction(group):
        recorded = (await driver.around(group, [])).metadata.get(OWNER)
        if recorded not in (None, ws.owner):
            return group_of(ws.owner)
        await driver.write(Change(group=group, metadata={OWNER: ws.owner}))
    return group


async def _claim_documents(ws: Workspace, address: str, driver: Any, group: str) -> None:
    """Make the owner's those listed documents of an older kit that the group holds."""
    unclaimed = ws.store.rows("documents", graph=address, owner=UNCLAIMED)
    if not unclaimed:
        return
    own = {row["name"] for row in ws.store.rows("documents", graph=address, owner=ws.owner)}
    held = await _documents(driver, group)
    for row in unclaimed:
        # one that was never loaded stands in no graph, and so is whose it may be
        if row["name"] not in own and (row["name"] in held or not row["version"]):
            ws.store.update("documents", {"id": row["id"], "owner": UNCLAIMED}, owner=ws.owner)
