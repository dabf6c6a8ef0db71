"""The resources that the operator watches and writes, and where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass

from panosc_operator.api.base import GROUP, VERSION
from panosc_operator.api.kinds import KINDS
from panosc_operator.domain.names import MANAGED_BY, OPERATOR
from panosc_operator.domain.seen import Key


@dataclass(frozen=True)
class Resource:
    """One resource of the API."""

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool
    watched: bool = True
    labelled: bool = True
    """Whether only those with our label are listed and watched."""

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def label_selector(self) -> str | None:
        """What the server filters by."""
        return f"{MANAGED_BY}={OPERATOR}" if self.labelled else None

    def path(self, key: Key | None = None, namespace: str = "") -> str:
        """Return the path of an object, or of all of them in one namespace or in the cluster."""
        namespace = key.namespace if key else namespace
        parts = ["api" if not self.group else f"apis/{self.group}", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if key:
            parts.append(key.name)
        return "/" + "/".join(parts)


_CUSTOM = tuple(
    Resource(kind.kind, GROUP, VERSION, kind.plural, kind.scope == "Namespaced", labelled=False) for kind in KINDS
)
_CHILDREN = (
    Resource("Pod", "", "v1", "pods", namespaced=True),
    Resource("Service", "", "v1", "services", namespaced=True),
    Resource("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", namespaced=True),
    Resource("PersistentVolume", "", "v1", "persistentvolumes", namespaced=False),
    Resource("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", namespaced=True),
    Resource("Job", "batch", "v1", "jobs", namespaced=True),
    Resource("DaskCluster", "kubernetes.dask.org", "v1", "daskclusters", namespaced=True),
    # Written, never read: a stolen operator token must not open sessions.
    Resource("Secret", "", "v1", "secrets", namespaced=True, watched=False),
)

RESOURCES = {resource.kind: resource for resource in (*_CUSTOM, *_CHILDREN)}
WATCHED = tuple(resource for resource in RESOURCES.values() if resource.watched)
PARENTS = ("AnalysisSession", "AnalysisJob")
CATALOGUE = ("AnalysisEnvironment", "AnalysisWorkflow", "DataSource")
SHARED = ("PersistentVolumeClaim", "PersistentVolume")
