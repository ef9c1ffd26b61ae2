/*-------------------------------------------------------------------------
 * log_link.h
 *	  Whose log is it, where it is in several databases?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LOG_LINK_H
#define CQRS_ES_LOG_LINK_H

/* the publications of a log, and of the declarations that one needs to read it */
#define LOG_LINK_PUBLICATION	"cqrs_es_log"
#define LOG_LINK_DECLARATIONS	"cqrs_es_declarations"

/* What this database is to the log of this node. */
typedef struct LogLink
{
	bool		follows;		/* it receives it */
	bool		publishes;		/* it publishes it, ... */
	bool		handed_over;	/* ... but may append nothing more */
	int64		last_position;	/* of what was handed over */

	/* of the logs of all nodes */
	bool		receives_declarations;
} LogLink;

extern void LogLinkInit(void);
extern const LogLink *LogLinkGet(void);
extern bool LogLinkIsCopying(void);
extern bool LogLinkIsCopied(const char *name);

#endif							/* CQRS_ES_LOG_LINK_H */
