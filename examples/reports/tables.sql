create table orders (at timestamptz not null default now(), total numeric not null);
create table counts (at timestamptz primary key, orders bigint not null);
create table reports (period text, at timestamptz, orders bigint not null, primary key (period, at));
