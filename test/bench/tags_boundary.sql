SELECT * FROM cqrs_es.execute_boundary('invoices', 'Issue', '{}');
