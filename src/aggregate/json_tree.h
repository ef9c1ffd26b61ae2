/*-------------------------------------------------------------------------
 * json_tree.h
 *	  A JSON document that can be changed in place.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_JSON_TREE_H
#define CQRS_ES_JSON_TREE_H

#include "utils/jsonb.h"
#include "utils/numeric.h"

typedef enum JsonNodeType
{
	JSON_NODE_NULL,
	JSON_NODE_BOOL,
	JSON_NODE_NUMBER,
	JSON_NODE_STRING,
	JSON_NODE_ARRAY,
	JSON_NODE_OBJECT
} JsonNodeType;

/* A number: of a node, or to be added to one. */
typedef struct JsonNumber
{
	Numeric		numeric;		/* NULL: it is scaled / 10^scale */
	int64		scaled;
	int			scale;
} JsonNumber;

typedef struct JsonNode JsonNode;
typedef struct JsonMember JsonMember;
struct json_index_hash;

/*
 * A value.  A node owns what hangs below it, all of it palloc'd in one memory
 * context, and has one owner itself.  Look at it freely; change it through the
 * functions only.
 */
struct JsonNode
{
	JsonNodeType type;
	union
	{
		bool		boolean;
		JsonNumber	number;
		struct
		{
			char	   *data;	/* not terminated */
			int			len;
		}			string;
		struct
		{
			JsonNode  **items;
			int			n;
			int			max;
		}			array;
		struct
		{
			JsonMember *members;	/* in no order */
			int			n;
			int			max;
			struct json_index_hash *index;	/* by key, once there are many */
		}			object;
	}			value;
};

struct JsonMember
{
	char	   *key;			/* not terminated */
	int			len;
	JsonNode   *value;
};

extern void JsonTreeDocumentValue(Jsonb *json, JsonbValue *value);
extern JsonNode *JsonTreeFromJsonb(Jsonb *json);
extern JsonNode *JsonTreeFromValue(const JsonbValue *value);
extern JsonNode *JsonTreeNewArray(void);
extern JsonNode *JsonTreeNewObject(void);
extern Jsonb *JsonTreeToJsonb(const JsonNode *node);
extern void JsonTreeFree(JsonNode *node);
extern const char *JsonTreeTypeName(const JsonNode *node);

extern JsonNode **JsonTreeFind(const JsonNode *object, const char *key, int len);
extern void JsonTreePut(JsonNode *object, const char *key, int len, JsonNode *value);
extern bool JsonTreeRemove(JsonNode *object, const char *key, int len);
extern void JsonTreeInsertItem(JsonNode *array, int position, JsonNode *item);
extern void JsonTreeRemoveItem(JsonNode *array, int position);
extern void JsonTreeReadNumber(JsonNumber *number, Numeric numeric);
extern void JsonTreeAddNumber(JsonNumber *number, const JsonNumber *amount, bool subtract);
extern JsonNode *JsonTreeMerge(JsonNode *target, const JsonbValue *patch);

#endif							/* CQRS_ES_JSON_TREE_H */
