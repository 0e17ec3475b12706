-- For a database that is not embedded: run once by its administrator, then create the
-- database with OWNER tmtp_owner and let `tmtpctl migrate` make the tables. How the roles log
-- in (peer, certificate, SCRAM) is pg_hba.conf's matter.
CREATE ROLE tmtp_owner LOGIN;
CREATE ROLE tmtp_site LOGIN;
CREATE ROLE tmtp_relay LOGIN;
CREATE ROLE tmtp_home LOGIN;
CREATE ROLE tmtp_panel LOGIN;
CREATE ROLE tmtp_ctl LOGIN;
