/*-------------------------------------------------------------------------
 * publisher_link.h
 *	  A connection to the publisher of a log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PUBLISHER_LINK_H
#define CQRS_ES_PUBLISHER_LINK_H

struct WalReceiverConn;

extern struct WalReceiverConn *PublisherLinkOpen(const char *connection);
extern char **PublisherLinkRow(struct WalReceiverConn *link, const char *sql, int ncolumns);
extern void PublisherLinkClose(struct WalReceiverConn *link);

#endif							/* CQRS_ES_PUBLISHER_LINK_H */
