SELECT bench.next_number('[{"tags": ["invoices"]}]');
