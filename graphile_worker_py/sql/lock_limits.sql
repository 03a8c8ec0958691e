-- Locks names of limits until the transaction ends, in the order given, which has to be the same for everybody.
insert into {schema}._private_py_limits as l (name)
select n.name from unnest(%(names)s::text[]) with ordinality as n (name, nth) order by n.nth
on conflict (name) do update set used_at = now()
