# Pictures of the Grafana dashboards, without a Grafana server: tests/dashboards/README.md. Included by the Makefile.
#
#   make dashboards        into docs/images/dashboards, to be looked at
#   make test-dashboards   into a temporary folder, judged by tests
#
# Both need Node.js with npm, Chromium (CHROMIUM=…) and Prometheus on PATH.

DASHBOARD_MODULES := $(CURDIR)/.cache/dashboards
DASHBOARD_STAMP := $(DASHBOARD_MODULES)/.installed

.PHONY: dashboards test-dashboards

$(DASHBOARD_STAMP): tests/dashboards/package.json tests/dashboards/package-lock.json
	mkdir -p $(DASHBOARD_MODULES)
	cp $^ $(DASHBOARD_MODULES)
	cd $(DASHBOARD_MODULES) && npm ci --silent --legacy-peer-deps --no-audit --no-fund --ignore-scripts
	touch $@

dashboards: setup $(DASHBOARD_STAMP)  ## pictures of the dashboards, into docs/images/dashboards
	DASHBOARD_MODULES=$(DASHBOARD_MODULES) $(PY) -m tests.dashboards.pictures docs/images/dashboards

test-dashboards: setup $(DASHBOARD_STAMP)  ## what the dashboards show of a running, a complete and a failed job
	DASHBOARD_MODULES=$(DASHBOARD_MODULES) $(PY) -m pytest -q -m dashboards tests/dashboards $(PYTEST_ARGS)
