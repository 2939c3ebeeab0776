"""What the events say and how big they are, like GitHub's webhooks."""

from __future__ import annotations

from typing import Final

import numpy as np

from dualstream_lab.workload.arrivals import Integers

_COMMON: Final = {  # weights as on a busy organisation; most traffic is pushes and pull requests
    "push": 300, "pull_request.opened": 40, "pull_request.synchronize": 90, "pull_request.closed": 40,
    "pull_request.labeled": 15, "pull_request.review_requested": 15, "pull_request_review.submitted": 40,
    "pull_request_review_comment.created": 30, "issues.opened": 25, "issues.closed": 20, "issues.labeled": 15,
    "issues.assigned": 8, "issue_comment.created": 75, "issue_comment.edited": 8, "create": 45, "delete": 30,
    "check_run.completed": 60, "check_suite.completed": 25, "workflow_run.completed": 25,
    "workflow_job.completed": 40, "status": 20, "watch.started": 25, "star.created": 25, "fork": 10,
    "release.published": 6, "commit_comment.created": 4, "discussion.created": 4,
    "discussion_comment.created": 5, "deployment.created": 6, "deployment_status.created": 8, "gollum": 2,
    "page_build": 3, "package.published": 2, "dependabot_alert.created": 3,
}  # fmt: skip
_RARE: Final = (
    "branch_protection_rule.created", "code_scanning_alert.created", "deploy_key.created", "label.created",
    "member.added", "membership.added", "merge_group.checks_requested", "meta.deleted", "milestone.created",
    "org_block.blocked", "organization.member_added", "ping", "project.created", "project_card.moved",
    "project_column.created", "projects_v2_item.edited", "public", "repository.created",
    "repository_dispatch.on-demand-test", "repository_import", "repository_vulnerability_alert.create",
    "sponsorship.created", "team.created", "team_add",
)  # fmt: skip

EVENT_TYPES: Final = (*_COMMON, *_RARE)
"""58 names; the position is the index in a plan."""

TYPE_WEIGHTS: Final = np.array([*_COMMON.values(), *[0.5] * len(_RARE)], dtype=np.float64)

# Bytes of a webhook's payload as compact JSON, at these shares of 329 sample deliveries of 58 types.
_SHARES: Final = (0, 0.05, 0.10, 0.20, 0.25, 0.30, 0.40, 0.50, 0.60, 0.70, 0.75, 0.80, 0.90, 0.95, 0.99, 1)
_BYTES: Final = (
    915, 2480, 2894, 6114, 6385, 6683, 7328, 7741, 8414, 10068, 11622, 12672, 23571, 24621, 26307, 26935,
)  # fmt: skip
MAX_GITHUB_BYTES: Final = _BYTES[-1]
_SMALLEST, _BIGGEST = 256, 900_000  # an empty event has its names; a record fits Kafka's 1 MiB


def draw_sizes(payload: str, payload_bytes: int, count: int, *, rng: np.random.Generator) -> Integers:
    """Bytes of each event: of its data for ``github``, else of the whole value."""
    if payload == "github":
        return np.interp(rng.random(count), _SHARES, _BYTES).astype(np.int64)
    if payload == "lognormal":
        drawn = payload_bytes * rng.lognormal(0.0, 1.0, count)
        return np.clip(drawn, _SMALLEST, _BIGGEST).astype(np.int64)
    return np.full(count, payload_bytes, dtype=np.int64)


def filler(length: int) -> bytes:
    """At least ``length`` bytes of prose that needs no escaping in JSON."""
    words = (
        b"fix the race between close and flush; see the linked run for the failing step. "
        b"Bumps the parser from 2.3 to 2.4, adds a test for empty input, and removes a stale flag. "
        b"https://api.github.com/repos/owner/name/commits/6dcb09b5b57875f334f61aebed695e2e4193db5e "
    )
    return words * (length // len(words) + 1)
