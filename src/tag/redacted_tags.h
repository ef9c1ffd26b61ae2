/*-------------------------------------------------------------------------
 * redacted_tags.h
 *	  Tags that were made of what is redacted.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDACTED_TAGS_H
#define CQRS_ES_REDACTED_TAGS_H

extern void RedactedTagsInit(void);

#endif							/* CQRS_ES_REDACTED_TAGS_H */
