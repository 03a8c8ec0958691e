-- The lowest id of a job after the one given, and the highest there is; null where there is none. Through the view, as
-- all that lists: who may read nothing else may list jobs.
select
    (select j.id from {schema}.jobs as j where j.id > %(after)s::bigint order by j.id limit 1),
    (select j.id from {schema}.jobs as j order by j.id desc limit 1)
