"""What the API server answered becomes the right error, with who holds which fields."""

import json
from typing import Any

import pytest

from paceline.controller import errors
from paceline.controller.errors import FieldConflict, ForeignFields, Unavailable, error_of_answer


def _status(reason: str, **more: Any) -> bytes:
    return json.dumps({"kind": "Status", "reason": reason, "message": f"it is {reason}", **more}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, _status("NotFound"), errors.NotFound),
        (409, _status("AlreadyExists"), errors.AlreadyExists),
        (409, _status("Conflict"), errors.StaleWrite),
        (422, _status("Invalid"), errors.Rejected),
        (403, _status("Forbidden"), errors.Rejected),
        (429, _status("TooManyRequests"), errors.Unavailable),
        (500, _status("InternalError"), errors.Unavailable),
        (503, b"<html>upstream connect error</html>", errors.Unavailable),
    ],
)
def test_each_answer_has_its_error(status: int, body: bytes, expected: type[errors.ApiError]) -> None:
    assert type(error_of_answer(status, body, what="x", headers={})) is expected


def test_a_refused_apply_names_every_manager_with_its_fields() -> None:
    apps, scale = "using apps/v1", 'with subresource "scale" using apps/v1'
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}" {how}', "field": field}
        for manager, how, field in (
            ("kubectl-edit", apps, ".spec.a"),
            ("hpa", scale, ".spec.replicas"),
            ("kubectl-edit", apps, ".spec.b"),
        )
    ]
    error = error_of_answer(409, _status("Conflict", details={"causes": causes}), what="x", headers={})
    assert isinstance(error, FieldConflict)
    assert error.foreign == (
        ForeignFields("kubectl-edit", (".spec.a", ".spec.b")),
        ForeignFields("hpa", (".spec.replicas",)),
    )


def test_the_server_says_when_to_come_back() -> None:
    error = error_of_answer(429, b"", what="x", headers={"Retry-After": "7"})
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 7
