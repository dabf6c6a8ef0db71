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
    spec: type[Model]
    status: type[Model] | None = None


SESSION = KindDefinition(
    "AnalysisSession", "analysissessions", "asess", "Namespaced", AnalysisSessionSpec, AnalysisSessionStatus
)
JOB = KindDefinition("AnalysisJob", "analysisjobs", "ajob", "Namespaced", AnalysisJobSpec, AnalysisJobStatus)
ENVIRONMENT = KindDefinition("AnalysisEnvironment", "analysisenvironments", "aenv", "Cluster", AnalysisEnvironmentSpec)
WORKFLOW = KindDefinition("AnalysisWorkflow", "analysisworkflows", "awf", "Cluster", AnalysisWorkflowSpec)
DATA_SOURCE = KindDefinition("DataSource", "datasources", "dsrc", "Cluster", DataSourceSpec)

KINDS = (SESSION, JOB, ENVIRONMENT, WORKFLOW, DATA_SOURCE)
