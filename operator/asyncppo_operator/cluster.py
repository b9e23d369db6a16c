"""The API server, thin: apply, create, get, list, watch, delete, and nothing remembered.

Owns the transport (the official asynchronous client), timeouts and the translation of failures into `errors`. Writes are server-side
applies with one field manager: never read, modify, write. Force is for objects that are known to be ours, and bound to their uid.
"""

import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from asyncppo_operator import names
from asyncppo_operator.errors import (
    ApiError,
    ConflictError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    api_error,
)
from asyncppo_operator.kinds import Resource, resource_of
from asyncppo_operator.telemetry import Telemetry

Object = dict[str, Any]

REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 10.0
PAGE = 500
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Cluster:
    """A connection to one API server. Raises `ApiError` and its kinds, nothing else. Use as an async context manager."""

    def __init__(self, client: ApiClient, telemetry: Telemetry) -> None:
        self._client = client
        self._telemetry = telemetry

    @classmethod
    async def connect(cls, telemetry: Telemetry, connections: int = 64) -> Self:
        """With the pod's service account inside a cluster, else with KUBECONFIG. ApiError when neither is there."""
        configuration = Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            try:
                await config.load_kube_config(client_configuration=configuration)
            except (config.ConfigException, OSError) as error:
                raise ApiError(f"no service account and no usable KUBECONFIG: {error}") from error
        configuration.connection_pool_maxsize = connections
        return cls(ApiClient(configuration), telemetry)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def apply(self, manifest: Object, uid: str = "") -> Object:
        """Make the object be as `manifest` says in every field it names: the one with this uid, whoever owns these fields.

        Without a uid it is to be made: where one is there after all, and differs, nothing is written. ConflictError when the object
        is not that one.
        """
        resource = resource_of(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        if not uid:
            return await self._call("PATCH", "apply", resource, path, {}, manifest, APPLY)
        body = {**manifest, "metadata": {**metadata, "uid": uid}}
        try:
            return await self._call("PATCH", "apply", resource, path, {"force": "true"}, body, APPLY)
        except InvalidError as error:
            # servers of version 1.20 call another object's uid an edit of a field that is immutable
            if "metadata.uid" in str(error):
                raise ConflictError(str(error), error.status) from error
            raise

    async def apply_status(self, resource: Resource, namespace: str, name: str, status: Object) -> Object:
        """Make the object's status be `status`; fields applied before and not named now go away. NotFoundError without the object."""
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        }
        path = resource.path(namespace, name, "status")
        return await self._call("PATCH", "apply", resource, path, {"force": "true"}, body, APPLY)

    async def create(self, manifest: Object) -> Object:
        """ConflictError when it exists."""
        resource = resource_of(manifest["apiVersion"], manifest["kind"])
        path = resource.path(manifest["metadata"]["namespace"])
        return await self._call("POST", "create", resource, path, {}, manifest)

    async def replace(self, manifest: Object) -> Object:
        """The whole object; ConflictError when it is not at the manifest's resourceVersion."""
        resource = resource_of(manifest["apiVersion"], manifest["kind"])
        path = resource.path(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        return await self._call("PUT", "update", resource, path, {}, manifest)

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Object) -> Object:
        """A JSON merge patch."""
        return await self._call("PATCH", "patch", resource, resource.path(namespace, name), {}, patch, MERGE)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str = "") -> bool:
        """Whether it was there. With `uid` only that very object; ConflictError when another has its name."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", "delete", resource, resource.path(namespace, name), {}, body)
        except NotFoundError:
            return False
        return True

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """None when it is not there."""
        try:
            return await self._call("GET", "get", resource, resource.path(namespace, name), {})
        except NotFoundError:
            return None

    async def look(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object's metadata alone; None when it is not there."""
        try:
            return await self._call("GET", "get", resource, resource.path(namespace, name), {}, accept=METADATA)
        except NotFoundError:
            return None

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> tuple[list[Object], str]:
        """All objects and the resourceVersion to watch from. namespace None: of the whole cluster."""
        query: dict[str, str] = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        found: list[Object] = []
        while True:
            accept = METADATA_LIST if metadata_only else JSON
            page = await self._call("GET", "list", resource, resource.path(namespace), query, accept=accept)
            found += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return found, str(metadata.get("resourceVersion") or "")
            query["continue"] = metadata["continue"]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        labels: str,
        version: str,
        seconds: int,
        fields: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[Object]:
        """Events {type, object} after `version`, bookmarks included, for `seconds`; then it ends. An ERROR event raises."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        # a stream that says nothing for longer than the server's own limit is dead
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=seconds + CONNECT_SECONDS)
        accept = METADATA if metadata_only else JSON
        path = resource.path(namespace)
        response = await self._open("GET", "watch", resource, path, query, None, "", timeout, accept)
        try:
            async for line in response.content:
                if not line.strip():
                    continue
                event: Object = msgspec.json.decode(line)
                if event.get("type") == "ERROR":
                    raised = event.get("object") or {}
                    raise api_error(int(raised.get("code") or 500), str(raised.get("message") or "the watch failed"))
                yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"the watch of {resource.plural} broke: {type(error).__name__} {error}") from error
        finally:
            response.close()

    async def serves(self, resource: Resource) -> bool:
        """Whether the API server knows the kind in this version."""
        try:
            answer = await self._call("GET", "discover", resource, resource.path(None).rpartition("/")[0], {})
        except NotFoundError:
            return False
        return any(found.get("name") == resource.plural for found in answer.get("resources") or [])

    async def may(self, verb: str, resource: Resource, namespace: str | None, subresource: str = "") -> bool:
        """Whether this identity has a right."""
        attributes = {"verb": verb, "group": resource.group, "resource": resource.plural, "subresource": subresource}
        if namespace is not None:
            attributes["namespace"] = namespace
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._call("POST", "review", resource, path, {}, body)
        return bool((answer.get("status") or {}).get("allowed"))

    async def _call(
        self,
        method: str,
        verb: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Object:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=CONNECT_SECONDS)
        response = await self._open(method, verb, resource, path, query, body, content_type, timeout, accept)
        try:
            answer: Object = msgspec.json.decode(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise UnavailableError(f"{verb} {path}: {type(error).__name__} {error}") from error
        return answer

    async def _open(
        self,
        method: str,
        verb: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
        accept: str,
    ) -> aiohttp.ClientResponse:
        """The response of a request that succeeded; its body is not read yet."""
        parameters = dict(query)
        if method in ("POST", "PUT", "PATCH"):
            parameters["fieldManager"] = names.FIELD_MANAGER
        begun = time.monotonic()
        status = 0
        try:
            # the body stays out of param_serialize, which walks it in Python: it is plain JSON already
            _, url, headers, _, _ = await self._client.param_serialize(
                method, path, query_params=list(parameters.items()), header_params={}, auth_settings=["BearerToken"]
            )
            headers |= {"Accept": accept, "Content-Type": content_type or JSON}
            answer = await self._client.rest_client.request(method, url, headers, body, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            status = response.status
            if status >= 400:
                raise api_error(status, f"{verb} {path}: {_reason(await response.read(), status)}")
            return response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(
                f"the API server does not answer ({verb} {path}): {type(error).__name__} {error}"
            ) from error
        finally:
            self._telemetry.api_call(verb, resource.kind, status, time.monotonic() - begun)


def _reason(body: bytes, status: int) -> str:
    """The message of a Status body, or the HTTP status."""
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return f"HTTP {status}"
    message = answer.get("message") if isinstance(answer, dict) else None
    return str(message or f"HTTP {status}")
