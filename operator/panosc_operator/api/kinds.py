"""The kinds of the group and how each is registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from panosc_operator.api.base import Model
from panosc_operator.api.datasource import DataSourceSpec
from panosc_operator.api.environment import AnalysisEnvironmentSpec
from panosc_operator.api.job import AnalysisJobSpec, AnalysisJobStatus
from panosc_operator.api.session import AnalysisSessionSpec, AnalysisSessionStatus
from panosc_operator.api.workflow import AnalysisWorkflowSpec


@dataclass(frozen=True)
class KindDefinition:
    """Names, scope and models of a kind."""

    kind: str
    plural: str
    short_name: str
    scope: Literal["Namespaced", "Cluster"]
    description: str
    spec: type[Model]
    status: type[Model] | None = None


SESSION = KindDefinition(
    "AnalysisSession",
    "analysissessions",
    "asess",
    "Namespaced",
    "One person's interactive work in the browser, with proposals at hand.",
    AnalysisSessionSpec,
    AnalysisSessionStatus,
)
JOB = KindDefinition(
    "AnalysisJob",
    "analysisjobs",
    "ajob",
    "Namespaced",
    "One run of a workflow over runs of a proposal, on Dask workers, with its results and its report.",
    AnalysisJobSpec,
    AnalysisJobStatus,
)
ENVIRONMENT = KindDefinition(
    "AnalysisEnvironment",
    "analysisenvironments",
    "aenv",
    "Cluster",
    "An entry of the catalogue of images, and the sizes it comes in.",
    AnalysisEnvironmentSpec,
)
WORKFLOW = KindDefinition(
    "AnalysisWorkflow",
    "analysisworkflows",
    "awf",
    "Cluster",
    "An entry of the catalogue of workflows that jobs run.",
    AnalysisWorkflowSpec,
)
DATA_SOURCE = KindDefinition(
    "DataSource",
    "datasources",
    "dsrc",
    "Cluster",
    "A facility's storage and where a proposal is found in it.",
    DataSourceSpec,
)

KINDS = (SESSION, JOB, ENVIRONMENT, WORKFLOW, DATA_SOURCE)
