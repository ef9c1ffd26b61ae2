# cqrs_es: event sourcing and CQRS inside PostgreSQL
#
# On any Debian or Ubuntu, with nothing but git and make (missing packages are
# installed through apt-get; the server is a private, throw-away one):
#
#	make test                        every test
#	make test TESTS="append fold"    only the tests with these names, of every kind
#	make test RINGS="pgtap regress"  only the tests of these kinds: pgtap, regress, isolation, perl
#	make test SETTINGS="jit=off"     with these settings of the servers
#	make test-bare                   both commands on bare machines, with 15, 17 and 18 (as root)
#	make test-all                    so, but every test on each, and with assertions
#	make test-assertions             every test, on a server that was built with assertions
#	make test-asan                   with AddressSanitizer and UndefinedBehaviorSanitizer
#	make test-valgrind               with Valgrind's memcheck
#	make coverage                    how much of the sources the tests run, and what not
#	make mutants                     does a test fail where the sources are made wrong?
#	make dist                        cqrs_es-VERSION.zip, as PGXN takes it
#	make deb                         Debian packages of it, for the servers that are installed
#	make demo                        a small application and three systems, step by step
#	make bench                       appends, reads, handlers, commands beside the same by hand
#	make bench BENCH=fold            replay against PL/pgSQL and a bare scan
#	make bench BENCH=rebuild         a read table from a long log: one transaction, portions
#	make bench BENCH=subscribe       consumers of the log, and what they cost appends
#	make bench BENCH=async           asynchronous projections: their cost, speed and lag
#	make bench BENCH=instructions    appends, handlers and commands, counted by callgrind
#	make bench BENCH=cliffs          what must not cost more in a longer stream or transaction
#	make bench BENCH=scale           a front with PL/Proxy: what it adds to a call
#	make bench BENCH=seals           sealing a log and verifying it, beside reading it
#	make bench BENCH=tags            tags, and decisions under a condition beside locks and SERIALIZABLE
#
# A benchmark of time ends with a chart, docs/bench-*.svg, where gnuplot is installed.
#
# Against your own server, as with any PGXS extension:
#
#	make && make install && make installcheck
#
# installcheck runs what needs no other extension: the tests of test/regress and
# the isolation specs, in databases of their own, as a superuser. Where the server
# has max_prepared_transactions = 0, the specs that prepare are left out.
# PG_CONFIG=... chooses among several PostgreSQL versions, for all of the above.
#
# With a server that was built with assertions the tests find more, and with
# SETTINGS=debug_discard_caches=1, which takes a hundred times as long, whatever is
# used after the server has thrown it out of a cache.

# Built elsewhere ("mkdir build; cd build; make -f ../Makefile"), this is where the
# sources are.
SOURCES := $(dir $(firstword $(MAKEFILE_LIST)))

EXTENSION = cqrs_es
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(SOURCES)$(EXTENSION).control)

# Each floor stands on those before it; what belongs to all of them is at the top.
ROOMS = base log tag aggregate command boundary projection subscription async seal scale

MODULE_big = $(EXTENSION)
OBJS = $(patsubst $(SOURCES)%.c,%.o,$(wildcard $(ROOMS:%=$(SOURCES)src/%/*.c) $(SOURCES)src/*.c))
PG_CPPFLAGS = -I$(SOURCES)src -Isrc -DCQRS_ES_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

# The install script is made of the numbered parts, in their order, which is that
# of the rooms. The update from the last release is made of them and of the install
# script of that, as is what the library has to know of the older tables; older updates stand
# in sql/ as they were released (sql/upgrade/README.md). Only what is generated may stand in
# DATA_built: "make clean" deletes what is there.
BUILT_SQL = sql/$(EXTENSION)--$(EXTVERSION).sql
RELEASED = $(shell cd $(SOURCES)sql/upgrade && ls $(EXTENSION)--*.sql | sed 's/^$(EXTENSION)--\(.*\)\.sql$$/\1/' | sort -V | tail -n 1)
BUILT_UPDATE = sql/$(EXTENSION)--$(RELEASED)--$(EXTVERSION).sql
BUILT_COLUMNS = src/base/older_columns.inc
DATA_built = $(BUILT_SQL) $(BUILT_UPDATE)
DATA = $(filter-out $(BUILT_UPDATE),$(patsubst $(SOURCES)%,%,$(sort $(wildcard $(SOURCES)sql/$(EXTENSION)--*--*.sql $(SOURCES)sql/upgrade/$(EXTENSION)--*.sql))))
EXTRA_CLEAN = $(BUILT_COLUMNS)

# The expected output of both kinds of tests is in ./expected. For pg_regress
# that takes --inputdir alone; for the isolation tester PGXS has set another
# --outputdir, which has to be set back. Built elsewhere, a link leads there.
REGRESS = $(patsubst $(SOURCES)test/regress/sql/%.sql,%,$(sort $(wildcard $(SOURCES)test/regress/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(SOURCES)test/regress --load-extension=$(EXTENSION)
ISOLATION = $(patsubst $(SOURCES)test/specs/%.spec,%,$(sort $(wildcard $(SOURCES)test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(SOURCES)test --outputdir=. --load-extension=$(EXTENSION)

PG_CONFIG ?= pg_config

# These must work before there is any pg_config to ask.
FROM_NOTHING = test test-bare test-all test-assertions test-asan test-valgrind coverage mutants demo dist deb bench
ifneq ($(or $(filter-out $(FROM_NOTHING),$(MAKECMDGOALS)),$(if $(MAKECMDGOALS),,all)),)

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(wildcard $(PGXS)),)
$(error $(PG_CONFIG) knows no PGXS: install the server's development package, or say where it is with PG_CONFIG=...)
endif
# Debian's client package brings PGXS, but no headers
ifneq ($(shell test -f "$$($(PG_CONFIG) --includedir-server)/postgres.h" && echo yes),yes)
$(error $(PG_CONFIG) knows no postgres.h: install the server's development package, or say where it is with PG_CONFIG=...)
endif
include $(PGXS)
ifeq ($(filter 15 16 17 18,$(MAJORVERSION)),)
$(error cqrs_es needs PostgreSQL 15 to 18; $(PG_CONFIG) is of $(VERSION))
endif

# The headers of 15 say () where a function may have any arguments; from C23 on, the
# default of gcc 15, that stands for none.
ifeq ($(MAJORVERSION),15)
override CFLAGS += -std=gnu11
# From 16 on PGXS hides what the server does not call. Here all is seen from outside, and nothing but
# our own calls would have to be looked up by name when the library is loaded.
override CFLAGS += -fno-semantic-interposition
# The linker of macOS does so by itself, and has no word for it.
ifneq ($(PORTNAME),darwin)
SHLIB_LINK += -Wl,-Bsymbolic
endif
endif

# AES comes from the OpenSSL that the server is linked with, where its headers are there.
ifneq ($(shell printf '\043include <openssl/evp.h>\n' | $(CC) $(CPPFLAGS) -E - >/dev/null 2>&1 && echo yes),)
SHLIB_LINK += $(filter -lcrypto,$(LIBS))
endif

# The tests of the examples start a psql; it is that of pg_regress.
installcheck: export PATH := $(bindir):$(PATH)
# Asynchronous projections are run when a test says so.
installcheck: export PGOPTIONS := $(PGOPTIONS) -c cqrs_es.projection_worker=off
installcheck: | $(CURDIR)/expected
$(CURDIR)/expected:
	ln -s $(abspath $(SOURCES)expected) $@

ifneq ($(filter installcheck,$(MAKECMDGOALS)),)
ifeq ($(shell $(bindir)/psql -XAtc 'SHOW max_prepared_transactions' postgres 2>/dev/null),0)
PREPARE := $(notdir $(basename $(shell grep -l 'PREPARE TRANSACTION' $(ISOLATION:%=$(SOURCES)test/specs/%.spec))))
ISOLATION := $(filter-out $(PREPARE),$(ISOLATION))
$(info left out, for max_prepared_transactions = 0: $(PREPARE))
endif
endif

# Dependency tracking is off in PGXS: every object depends on every header, and one on
# the version.
$(OBJS): $(wildcard $(SOURCES)src/*/*.h) $(SOURCES)$(EXTENSION).control

SQL_PARTS = $(foreach room,$(ROOMS),$(sort $(wildcard $(SOURCES)sql/$(room)/*.sql))) \
	$(sort $(wildcard $(SOURCES)sql/[0-9]*.sql))
$(BUILT_SQL): $(SQL_PARTS)
	cat $^ > $@

UPGRADE = $(SOURCES)sql/upgrade
STEP = perl $(UPGRADE)/step $(1) $(UPGRADE)/$(EXTENSION)--$(RELEASED).sql $(BUILT_SQL) $(UPGRADE)/$(RELEASED).values
$(BUILT_UPDATE): $(BUILT_SQL) $(wildcard $(UPGRADE)/*)
	$(call STEP,script) > $@ || { rm -f $@; false; }
$(BUILT_COLUMNS): $(BUILT_SQL) $(wildcard $(UPGRADE)/*)
	$(call STEP,columns) > $@ || { rm -f $@; false; }
src/base/older_sql.o src/base/older_sql.bc: $(BUILT_COLUMNS)

# Built elsewhere, the folders are not there yet.
ifneq ($(SOURCES),./)
$(shell mkdir -p $(sort $(dir $(OBJS) $(BUILT_SQL))))
endif

endif

test:
	@$(SOURCES)test/bootstrap tests >/dev/null
	@$(SOURCES)test/with-server $(SETTINGS:%=-c %) test/rings $(RINGS:%=-r %) $(TESTS)

test-bare:
	@$(SOURCES)test/bare-machines

test-all:
	@$(SOURCES)test/bare-machines all

# The server is built once, and its root kept.
test-assertions:
	@$(SOURCES)test/bare-root -k assertions test/server-with-assertions
	@$(SOURCES)test/bare-root -b assertions \
		make test TESTS="$(TESTS)" RINGS="$(RINGS)" SETTINGS="$(SETTINGS)"

# test/README.md says what these find. By default all that one server can show, and for
# Valgrind, which is slow, what goes through most of the sources.
test-asan: NAMES = $(notdir $(basename $(wildcard $(addprefix $(SOURCES)test/,sql/*.sql regress/sql/*.sql specs/*.spec))))
test-asan:
	@$(SOURCES)test/bootstrap tests >/dev/null
	@$(SOURCES)test/with-server -s asan $(SETTINGS:%=-c %) test/rings $(or $(TESTS),$(sort $(NAMES)))

test-valgrind: NAMES = append fold hostile_json snapshot command projection async_projections subscription receive
test-valgrind:
	@$(SOURCES)test/bootstrap tests valgrind >/dev/null
	@$(SOURCES)test/with-server -s valgrind -c jit=off $(SETTINGS:%=-c %) test/rings $(or $(TESTS),$(NAMES))

coverage:
	@$(SOURCES)test/bootstrap tests >/dev/null
	@COPT='--coverage -O0 -Wno-cpp' $(SOURCES)test/with-server $(SETTINGS:%=-c %) test/coverage $(TESTS)

mutants:
	@$(SOURCES)test/bootstrap tests >/dev/null
	@$(SOURCES)test/with-server test/mutants $(MUTANTS)

demo:
	@$(SOURCES)test/with-server test/demo

# Both put what they make into results/, and print where it is.
dist deb:
	@$(SOURCES)packaging/$@ results

# Settings of a production server, where test/with-server has those of a test.
BENCH ?= operations
bench:
	@$(SOURCES)test/with-server -d bench \
		-c fsync=on -c shared_buffers=1GB -c max_wal_size=8GB \
		-c checkpoint_timeout=30min -c autovacuum=on \
		test/bench/$(BENCH)
	@! test -e $(SOURCES)results/bench-$(BENCH).svg || mv $(SOURCES)results/bench-$(BENCH).svg $(SOURCES)docs/
	@! test -e $(SOURCES)results/instructions.txt || mv $(SOURCES)results/instructions.txt $(SOURCES)test/bench/

.PHONY: $(FROM_NOTHING)
